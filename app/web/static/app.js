// Preferably
