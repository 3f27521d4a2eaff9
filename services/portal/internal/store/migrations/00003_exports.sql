-- +goose Up
-- Up to where the log of changes was passed on, and who does that until when. While until_at lies
-- ahead nobody else does; it goes by the database's clock.
CREATE TABLE exports (
    name     name_text NOT NULL PRIMARY KEY,
    revision bigint    NOT NULL,
    seq      bigint    NOT NULL,
    holder   name_text NOT NULL, -- empty: nobody
    until_at bigint    NOT NULL,
    problem  text      NOT NULL  -- why the holder gets no further; empty: it does
);

-- +goose Down
DROP TABLE exports;
