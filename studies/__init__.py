"""Studies: one file per question.

A study is a module with a docstring (question, expected answer, run time), a frozen ``Config``,
``PRESETS`` (name → the configs of its rows), a pure ``trial`` (config → samples) and ``figure``
(rows → picture). ``python -m studies list`` names them.
"""
