"""From readings to a verdict: statistics, power, the rule."""
