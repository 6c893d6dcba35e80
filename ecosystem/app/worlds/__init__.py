"""The worlds behind the page: sessions, live runs, and run folders as the page shows them."""
