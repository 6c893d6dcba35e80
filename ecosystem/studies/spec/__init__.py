"""Study and frontier files as frozen values, validated when they are read."""
