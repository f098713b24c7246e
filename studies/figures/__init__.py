"""Pictures and tables of result files: they read rows and measure nothing.

``intervals`` and ``clusters`` are the statistics of rows.
"""
