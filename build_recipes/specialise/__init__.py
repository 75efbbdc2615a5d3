"""A wheel for one device out of one for many: images taken out, PTX assembled, everything else left as it is."""
