"""The life of a web: types of sites, births and deaths of sites, pages and links, and refusal of crawlers."""
