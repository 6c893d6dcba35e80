"""Finished runs side by side: one scenario over several seeds, and several scenarios with their differences."""
