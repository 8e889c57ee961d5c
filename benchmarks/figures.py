"""Numbers as people read them."""


def short(value: float) -> str:
    """Return a number of three digits.

    >>> short(2_712_345), short(13_040), short(151.4), short(17.24), short(0.5)
    ('2.71 M', '13.0 k', '151', '17.2', '0.50')
    """
    for size, name in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{_three(value / size)}{name}"
    return _three(value)


def _three(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
