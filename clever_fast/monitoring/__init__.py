"""What a run reports while it trains: metrics, loggers, the console, curves, and warnings."""
