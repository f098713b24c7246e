"""Studies: one file per question, over one runner.

``studies/study.py`` says what a study is and names them all. The questions lie beside it: read
``kappa.py`` or ``rip.py``. ``measures/`` has what their trials are made of, ``figures/`` their
pictures and tables, ``runner/`` carries grids out into files; ``cli.py`` is ``sgc study`` (or
``python -m studies``).
"""
