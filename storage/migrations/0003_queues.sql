-- Queues as a resource, and indexes for lists (docs/decisions/0006-lists.md).

-- `retention`: state -> milliseconds, NULL = the program's defaults. A deleted queue keeps its number, by which finished
-- tasks know it, and comes back with its first use. A program that does not know these columns works on without them.
ALTER TABLE queues ADD COLUMN retention json, ADD COLUMN deleted boolean NOT NULL DEFAULT false;

-- Lists. Rows without labels cost the index of labels nothing; what few rows have is found by it (sql/reader.sql).
CREATE INDEX tasks_labels ON tasks USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;
CREATE INDEX finished_labels ON finished USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;
CREATE INDEX finished_succeeded ON finished (queue_id, due_ms) WHERE state = 2;
