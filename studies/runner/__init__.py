"""Grids carried out: trials in processes, a line of the result file each, going on after a stop.

``job`` is what the command does, ``grid`` a study from a script of one's own, ``workers`` the
processes, ``rows`` which lines of a file a picture shows, ``show`` how they are shown.
"""
