"""The paths on which rows reach their experts, one file each; all give what the dense reference gives."""
