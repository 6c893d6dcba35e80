"""What happens in one step: the state of a world, its agents, the phases, and what is measured of it."""
