// Package embed runs a NATS server inside this process, with JetStream on disk and the subject mapping of our
// namespaces. The all-in-one is built on it, and so are the tests that need a real server. It also has what belongs to
// a data folder: the lock that proves a former process gone, and the free space of its disk.
package embed
