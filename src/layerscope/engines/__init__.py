"""Where work items run. An engine knows workers and items, never what an item means."""
