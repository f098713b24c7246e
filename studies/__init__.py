"""Studies: one file per question, over one runner.

``studies/study.py`` says what a study is and names them all, ``studies/grid.py`` runs one into a
file, ``studies/cli.py`` is ``sgc study`` (or ``python -m studies``).
"""
