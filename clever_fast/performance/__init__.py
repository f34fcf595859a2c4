"""Where a step's time goes, how many operations it needs, and the fastest settings for it."""
