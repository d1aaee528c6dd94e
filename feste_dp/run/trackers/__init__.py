"""Where else a run's figures go: the small interface of trackers, and one file for each kind of them."""
