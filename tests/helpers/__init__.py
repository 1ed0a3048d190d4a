"""What tests share: builders of files, records and zips, and references computed another way."""
