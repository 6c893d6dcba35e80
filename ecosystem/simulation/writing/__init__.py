"""What writers with a choice learn and draft, as functions of the state of a world."""
