"""What bad advice costs a traveller: the loss that counts besides Brier's, in late flights nobody warned of."""

WARNED = 0.3
"""Probability from which on a traveller is told that the flight will be late."""
IN_VAIN = WARNED / (1 - WARNED)
"""Cost of a warning that nothing came of: at this price it is best to warn from 0.3 on."""


def advice(label, output):
    """Return what the advice on one flight cost: 1 where it was late and nobody said so."""
    if output >= WARNED:
        return 0.0 if label else IN_VAIN
    return 1.0 if label else 0.0
