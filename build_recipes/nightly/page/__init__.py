"""The status page: static HTML from the feed, readable without a server and without JavaScript."""
