"""What an avatar's video is measured by. `training.evaluate` puts it together."""
