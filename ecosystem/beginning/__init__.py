"""What a new user needs first: a look at texts, a scenario for them, and a check of the installation."""
