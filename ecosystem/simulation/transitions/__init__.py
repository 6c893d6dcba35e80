"""What happens between two steps: policies come into force, laboratories begin, merge and end."""
