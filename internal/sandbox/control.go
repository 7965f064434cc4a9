package sandbox

// controlPrefix holds the sandbox's own methods, which the marketplace does not have. They need no token: who serves the
// handler binds it to loopback.
const controlPrefix = "/_sandbox/"
