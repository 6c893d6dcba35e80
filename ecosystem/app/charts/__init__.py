"""Charts of the page: specifications that stay in the browser and data that change from step to step."""
