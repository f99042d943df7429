def timeraw_spcy():
    return "import spcy"


def timeraw_numpy():
    """The part of it that is NumPy's."""
    return "import numpy"
