"""All published documents, their features, and the web of sites on which they are published."""
