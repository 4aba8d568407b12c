"""Units that people read pressures in."""

EV_PER_ANGSTROM3_IN_GPA = 160.2176634  # CODATA 2018: the elementary charge is exact
EV_PER_ANGSTROM3_IN_BAR = 1.602176634e6
