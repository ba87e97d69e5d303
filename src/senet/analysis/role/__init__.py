"""The role of excitation (section 7.2): the gates of a network over labelled images, and what they say."""
