"""The query language: small Python expressions, compiled to SQL with bound values, never evaluated."""
