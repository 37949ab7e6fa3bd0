"""Schema migrations, run by inspector.audit.database when a log is opened for writing."""
