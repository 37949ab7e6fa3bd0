"""`inspector bench`: what a part costs in the station and in the engine, and what it must cost."""
