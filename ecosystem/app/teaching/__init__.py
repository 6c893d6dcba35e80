"""Stories that lead a class through a world, scene by scene, and check what each scene says."""
