"""From a finished wheel to a machine that serves: companions, an installation, a board over ssh, an image."""
