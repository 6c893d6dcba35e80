"""The documents ever published, their features, and the web of sites that they are published on."""
