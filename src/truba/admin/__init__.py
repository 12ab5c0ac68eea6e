"""What operators see and steer over HTTP. An extra, `truba[admin]`; nothing imports it unless `[admin]` is configured.

    guard    who asks, and may they; what a page of another site may not do
    looking  sessions, kinds, metrics: reads, in slices, so that no client waits for an operator
    steering each change is written to the audit log, made durable, written again with its result, then answered
    page     the web page: plain files, no build step

It runs on the node's own loop, since a node is not for threads, and knows the node only through `subject`.
"""
