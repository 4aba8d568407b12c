"""Relaxation, dynamics, equations of state and phonons: what the commands of these names do, over ASE and phonopy.

The modules need ASE, ``phonons`` phonopy as well; the commands ask :mod:`dpa2.optional` for them first.
"""
