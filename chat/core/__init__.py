"""Pure: the room, its log and its wire. No clock, socket, disk or event loop; time and chance are arguments."""
