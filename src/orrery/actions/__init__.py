"""How each action of the loop is done: the stages put to work, their results written down as events."""
