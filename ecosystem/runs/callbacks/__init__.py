"""What follows a run from outside: callbacks that get its curves, such as TensorBoard, and a command at its end."""
