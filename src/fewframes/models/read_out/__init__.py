"""Linear read-outs of moments that are solved in closed form."""
