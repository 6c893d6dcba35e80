"""Worlds that tests step in memory."""

from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World


def run_world(scenario: Scenario, steps: int) -> World:
    world = World(scenario)
    for _ in range(steps):
        world.step()
    return world
