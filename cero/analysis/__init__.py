"""What has a run left behind? Its log and its state, read and shown."""
