-- Queues as a resource, and indexes for lists (docs/decisions/0007-lists.md).

-- `retention`: state -> milliseconds, NULL = the program's defaults. A deleted queue keeps its number, by which finished
-- tasks know it, and comes back with its first use. A program that does not know these columns works on without them.
ALTER TABLE queues ADD COLUMN retention json, ADD COLUMN deleted boolean NOT NULL DEFAULT false;
