"""What study and frontier files say: frozen values that are checked when they are read."""
