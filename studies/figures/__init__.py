"""Pictures and tables of result files: they read rows and measure nothing."""
